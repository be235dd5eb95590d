//! FastCGI 1.0: rules by section, and properties.

mod cgi;
mod common;
mod properties;
mod round_trip;
mod rules;
