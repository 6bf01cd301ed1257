mod attention;
mod golden;
mod kv;
mod linear;
mod rope;
mod smooth;
mod store;
mod weights;
