"""When whole tables are answered: a schedule for each, by the champion of the moment."""
