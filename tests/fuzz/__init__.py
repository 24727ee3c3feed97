"""The fuzz target: mutated inputs for every parser that reads bytes which strangers may have written."""
