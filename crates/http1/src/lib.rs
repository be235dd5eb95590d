//! forebay-http1
