"""The edge and the composition root; imports everybody."""
