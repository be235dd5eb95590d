//! forebay-route
