mod bad_input;
mod golden;
mod properties;
mod support;
mod writers;
