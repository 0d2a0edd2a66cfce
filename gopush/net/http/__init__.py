"""HTTP ports: twisted.web's site, a short cut in front of it, and what handlers see of a request."""
