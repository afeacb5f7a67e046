"""What a person sees. No decisions."""
