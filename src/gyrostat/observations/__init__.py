"""What was seen each second, in hash-chained segments that decisions point at."""
