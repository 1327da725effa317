//! Applies and observes kernel state through aya, netlink and cgroups.
