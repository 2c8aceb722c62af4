"""One request and its response, from the decision to the end."""
