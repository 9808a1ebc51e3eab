"""Commands of the app `iam`."""
