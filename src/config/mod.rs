//! What the user wrote, checked against what exists.
