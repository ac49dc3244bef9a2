//! One run for one mirror when things go wrong: failures, kills, several at once.

mod concurrency;
mod crash;
mod damage;
mod fence;
mod leases;
mod network;
mod order;
mod portions;
mod retry;
