"""Endpoints, signed deliveries, retries."""
