//! One run for one mirror when things go wrong: failures, kills, several at once.

mod chunking;
mod concurrency;
mod corruption;
mod crash;
mod fence;
mod leases;
mod network;
mod order;
mod retry;
