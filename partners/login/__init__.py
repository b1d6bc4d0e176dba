"""How a member proves to be one: passwords, one-time codes, authenticator apps, passkeys, and the limits on guessing."""
