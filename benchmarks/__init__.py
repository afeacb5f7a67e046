"""What the documents claim, measured again by one command each."""
