"""The model server: answers predictions from what is on disk, whatever happens to the rest."""
