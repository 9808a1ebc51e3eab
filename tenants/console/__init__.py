"""The web dashboard: sign-in, and so far one page that lists the instances."""
