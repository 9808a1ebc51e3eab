"""Plans and their limits as data; usage by the hour, rolled up from what data planes hand in."""
