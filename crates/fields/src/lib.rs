//! forebay-fields
