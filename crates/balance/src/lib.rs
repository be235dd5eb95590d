//! forebay-balance
