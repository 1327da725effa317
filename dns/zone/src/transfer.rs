//! All records of a domain, for zone transfers.

use std::sync::Arc;

use crate::{
    Name, Record, RecordData, Zone,
    answer::{below, service::host_name},
    entry::{Entry, Kind, Port},
};

impl Zone {
    /// The records of one of its domains, the SOA first. Reverse zones and other names have none.
    pub fn records(&self, domain: &Name) -> Option<Vec<Record>> {
        let domain = self.config.domains.iter().find(|own| *own == domain)?;
        if !self.is_synced() {
            return None;
        }
        let server = self.server_name(domain.as_wire());
        let mut records =
            vec![self.soa(domain.as_wire()), self.record(domain, RecordData::Ns(server.clone()))];
        if self.config.domain_of(&server).is_some() && server == below(&[b"ns", b"dns"], domain.as_wire()) {
            records
                .extend(self.server_addresses().iter().map(|address| self.address_record(&server, *address)));
        }
        let mut entries: Vec<&Arc<Entry>> = self.entries().collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            self.records_of(entry, domain.as_wire(), &mut records);
        }
        Some(records)
    }

    fn records_of(&self, entry: &Entry, domain: &[u8], records: &mut Vec<Record>) {
        let service = host_name(entry, None, domain);
        let start = records.len();
        match &entry.kind {
            Kind::External(target) => records.push(self.record(&service, RecordData::Cname(target.clone()))),
            Kind::ClusterIp(addresses) => {
                records.extend(addresses.iter().map(|address| self.address_record(&service, *address)));
                if !addresses.is_empty() {
                    self.ports(&entry.ports, &service, &service, records);
                }
            }
            Kind::Headless if self.config.no_endpoints => {}
            Kind::Headless => {
                for endpoint in &entry.endpoints {
                    let label = entry.label_of(endpoint, self.config.endpoint_pod_names);
                    let host = host_name(entry, Some(&label), domain);
                    records.push(self.address_record(&service, endpoint.address));
                    records.push(self.address_record(&host, endpoint.address));
                    self.ports(entry.ports_of(endpoint), &service, &host, records);
                }
            }
        }
        // Endpoints may share a hostname, and slices may repeat one another.
        let mut seen: Vec<Record> = Vec::with_capacity(records.len() - start);
        for record in records.drain(start..) {
            if !seen.contains(&record) {
                seen.push(record);
            }
        }
        records.append(&mut seen);
    }

    fn ports(&self, ports: &[Port], service: &Name, target: &Name, records: &mut Vec<Record>) {
        for port in ports.iter().filter(|port| !port.name.is_empty()) {
            let protocol = format!("_{}", port.protocol.as_str().to_ascii_lowercase());
            let name = format!("_{}", port.name);
            let owner = below(&[name.as_bytes(), protocol.as_bytes()], service.as_wire());
            let data = RecordData::Srv { priority: 0, weight: 100, port: port.port, target: target.clone() };
            records.push(self.record(&owner, data));
        }
    }
}
