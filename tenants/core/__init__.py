"""What all apps share, a closed list: base model, errors, request ids, pages, health."""
