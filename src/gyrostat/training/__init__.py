"""From a table to a bundle: run the user's training, convert what can be converted, write down what it was made of."""
