mod node;
mod sim;
mod simulation;
mod workload;
