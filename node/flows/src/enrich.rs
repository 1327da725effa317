//! Names for a record's addresses.

use std::net::{IpAddr, SocketAddr};

use fairlead_abi::{
    Addr16, Be16, DropReason,
    event::{FLOW_DENIED, FLOW_END, FlowEvent, ROLE_SERVER},
};
use fairlead_model::{Flow, FlowEnd, FlowState, Protocol, Verdict, View};

use crate::{Clock, Directory};

/// Turns records into flows with what is known of the cluster now.
#[derive(Clone, Copy, Debug)]
pub struct Enricher<'a> {
    /// This node.
    pub node: &'a str,
    /// Pods by address.
    pub view: &'a View,
    /// Services and nodes by address.
    pub directory: &'a Directory,
    /// Time of day.
    pub clock: Clock,
}

impl Enricher<'_> {
    /// The flow that a record tells of. The side that opened the connection is the source, whichever side's socket
    /// was observed.
    pub fn flow(&self, event: &FlowEvent) -> Flow {
        let by_server = event.role == ROLE_SERVER;
        let local = self.end(event.local, event.local_port);
        let remote = self.end(event.remote, event.remote_port);
        let (source, destination) = if by_server { (remote, local) } else { (local, remote) };
        let (bytes_sent, bytes_received) = if by_server {
            (event.bytes_received, event.bytes_sent)
        } else {
            (event.bytes_sent, event.bytes_received)
        };
        let began = event.start_ns != 0;
        Flow {
            time_unix_ns: self.clock.to_unix_ns(event.time_ns),
            duration_ns: if began { event.time_ns.saturating_sub(event.start_ns) } else { 0 },
            node: self.node.to_owned(),
            state: if event.kind == FLOW_END || event.kind == FLOW_DENIED {
                FlowState::Ended
            } else {
                FlowState::Started
            },
            protocol: protocol(event.proto),
            source,
            destination,
            service: (event.service != Addr16::UNSPECIFIED).then(|| {
                let address = event.service.to_ip();
                (self.directory.service(address).cloned(), address, event.service_port.get())
            }),
            verdict: verdict(event),
            bytes_sent,
            bytes_received,
            rtt_us: event.srtt_us,
            retransmits: event.retransmits,
            seen_by_source: !by_server,
        }
    }

    fn end(&self, address: Addr16, port: Be16) -> FlowEnd {
        let ip: IpAddr = address.to_ip();
        let pod = self.view.pod_by_address(ip);
        FlowEnd {
            address: SocketAddr::new(ip, port.get()),
            pod: pod.map(|pod| pod.name.clone()),
            node: pod.map(|pod| pod.node.clone()).or_else(|| self.directory.node(ip).map(str::to_owned)),
        }
    }
}

fn protocol(number: u8) -> Protocol {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter().find(|protocol| protocol.number() == number).unwrap_or_default()
}

fn verdict(event: &FlowEvent) -> Verdict {
    if event.kind == FLOW_DENIED {
        Verdict::Denied(DropReason::from_number(event.reason).map_or("unknown", DropReason::name))
    } else {
        Verdict::Forwarded
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fairlead_abi::event::{FLOW_START, ROLE_CLIENT};
    use fairlead_model::{Change, Node, ObjectName, Pod, Revision, Service, Update};

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 5));
    const BACKEND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 7));
    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 20));

    fn cluster() -> (View, Directory) {
        let pod = |name: &str, node: &str, address| {
            Change::PutPod(Pod {
                name: ObjectName::new("demo", name),
                node: node.into(),
                addresses: vec![address],
                ..Pod::default()
            })
        };
        let echo = ObjectName::new("demo", "echo");
        let changes = vec![
            pod("client", "node-1", CLIENT),
            pod("echo-1", "node-2", BACKEND),
            Change::PutService(Service { name: echo.clone(), addresses: vec![VIP], ..Service::default() }),
            Change::PutNode(Node {
                name: "node-2".into(),
                addresses: vec![IpAddr::from([172, 29, 0, 12])],
                ..Node::default()
            }),
        ];
        let mut view = View::default();
        view.apply(Update { revision: Revision { epoch: 1, sequence: 1 }, snapshot: true, changes });
        let mut directory = Directory::default();
        directory.update_services(&view, &BTreeSet::from([echo]));
        directory.update_nodes(&view);
        (view, directory)
    }

    fn flow(event: &FlowEvent) -> Flow {
        let (view, directory) = cluster();
        let clock = Clock::new(1_000, 1_000_001_000);
        Enricher { node: "node-1", view: &view, directory: &directory, clock }.flow(event)
    }

    fn event() -> FlowEvent {
        FlowEvent {
            time_ns: 5_000,
            start_ns: 2_000,
            bytes_sent: 10,
            bytes_received: 20,
            local: CLIENT.into(),
            remote: BACKEND.into(),
            service: VIP.into(),
            local_port: Be16::new(40_000),
            remote_port: Be16::new(8080),
            service_port: Be16::new(80),
            proto: 6,
            kind: FLOW_END,
            role: ROLE_CLIENT,
            ..FlowEvent::default()
        }
    }

    #[test]
    fn a_client_s_record_names_both_pods_and_the_service() {
        let flow = flow(&event());
        assert_eq!(flow.source.pod, Some(ObjectName::new("demo", "client")));
        assert_eq!(flow.destination.pod, Some(ObjectName::new("demo", "echo-1")));
        assert_eq!(flow.destination.node.as_deref(), Some("node-2"));
        assert_eq!(flow.service, Some((Some(ObjectName::new("demo", "echo")), VIP, 80)));
        assert_eq!((flow.bytes_sent, flow.bytes_received, flow.duration_ns), (10, 20, 3_000));
        assert_eq!((flow.state, flow.time_unix_ns), (FlowState::Ended, 1_000_005_000));
    }

    #[test]
    fn a_server_s_record_has_the_same_direction_as_its_client_s() {
        let seen = event();
        let server = FlowEvent {
            local: seen.remote,
            remote: seen.local,
            local_port: seen.remote_port,
            remote_port: seen.local_port,
            bytes_sent: seen.bytes_received,
            bytes_received: seen.bytes_sent,
            role: ROLE_SERVER,
            ..seen
        };
        let (client, server) = (flow(&seen), flow(&server));
        assert!(client.seen_by_source && !server.seen_by_source);
        assert_eq!(Flow { seen_by_source: true, ..server }, client);
    }

    #[test]
    fn a_refusal_says_why_and_a_start_is_not_an_end() {
        let denied = FlowEvent { kind: FLOW_DENIED, reason: 1, start_ns: 0, ..event() };
        assert_eq!(flow(&denied).verdict, Verdict::Denied("no-endpoints"));
        assert_eq!(flow(&denied).duration_ns, 0);
        let start = FlowEvent { kind: FLOW_START, service: Addr16::UNSPECIFIED, ..event() };
        assert_eq!((flow(&start).state, flow(&start).service), (FlowState::Started, None));
    }
}
