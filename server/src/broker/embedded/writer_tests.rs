//! The writer on a disk that takes nothing for a while.
