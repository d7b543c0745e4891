"""What a table of answers is worth: correlations, classification, controls, and one report that needs nothing but a browser."""
