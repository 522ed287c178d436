//! A whole case against a peer that a shell plays.
