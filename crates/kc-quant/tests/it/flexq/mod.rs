mod bad_input;
mod golden;
mod kernels;
mod sensitivity;
