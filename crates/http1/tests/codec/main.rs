//! The codec, rule by rule, and its properties.

mod body;
mod common;
mod encode;
mod in_a_row;
mod properties;
mod request_head;
mod response_head;
