"""The story of the loop, told through the doors that a user has."""
