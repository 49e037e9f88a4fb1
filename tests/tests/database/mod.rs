//! The database goes away, in every way, and nothing is given away or lost.
