"""A LeNet-5 trained on handwritten digits, twenty digits it has not seen, and the script that made both."""
