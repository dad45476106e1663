"""What `up` starts and keeps."""
