"""Programs for clients that are libraries, as anybody would write them."""
