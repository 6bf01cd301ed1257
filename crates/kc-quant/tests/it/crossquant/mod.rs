mod calibrate;
mod codes;
mod golden;
mod linear;
