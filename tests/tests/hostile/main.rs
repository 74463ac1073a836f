//! Hostile meters, and whoever sits before honest ones: what they send is refused, counted and told, and everybody else is read.

mod cad;
mod hdlc;
mod listener;
mod p1;
mod polled;
mod ports;
mod secured;
mod wrapper;
