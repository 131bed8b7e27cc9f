mod bench;
mod hostile;
mod node;
mod requests;
mod responses;
mod sim;
mod simulation;
mod workload;
