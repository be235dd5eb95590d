//! forebay-sys
