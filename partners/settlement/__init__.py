"""What bank and partner owe each other, day by day."""
