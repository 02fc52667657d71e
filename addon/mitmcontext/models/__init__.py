"""What is known about models: their names and their windows, as data and its look-up."""
