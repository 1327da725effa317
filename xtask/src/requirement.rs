//! What a machine must have, as a table: what it is, why it is needed, how to tell, how to get it.

/// When a requirement is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Needed {
    /// To compile anything.
    Build,
    /// To run the demo and the tests.
    Run,
    /// To run the tests only.
    Test,
    /// To lint.
    Lint,
}

/// How to see that a requirement is met.
pub(crate) enum Check {
    /// A program of this name is on the path.
    Program(&'static str),
    /// A file exists.
    File(&'static str),
    /// A file of Debian's compiler exists, or rustup has a toolchain that builds eBPF.
    Compiler(&'static str),
}

/// How to get what is missing.
pub(crate) enum Source {
    /// A Debian package.
    Debian(&'static str),
    /// A crate's binary, kept in the tool cache.
    Cargo(CargoTool),
    /// A package of PyPI in an environment of its own, kept in the tool cache.
    Python(PythonTool),
}

/// A package that Python tests import.
pub(crate) struct PythonTool {
    /// The package.
    pub(crate) name: &'static str,
    /// Exact version.
    pub(crate) version: &'static str,
}

/// The Python client of Kubernetes.
pub(crate) const PYTHON_CLIENT: PythonTool = PythonTool { name: "kubernetes", version: "37.0.2" };

/// A tool built from a crate.
pub(crate) struct CargoTool {
    /// Crate and binary.
    pub(crate) name: &'static str,
    /// Exact version.
    pub(crate) version: &'static str,
    /// Further arguments of `cargo install`.
    pub(crate) args: &'static [&'static str],
    /// Environment of the build.
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// Tells builds of one version apart.
    pub(crate) variant: &'static str,
}

/// One row.
pub(crate) struct Requirement {
    /// When it is needed.
    pub(crate) needed: Needed,
    /// Why, for the person who watches it being installed.
    pub(crate) why: &'static str,
    /// How to tell that it is there; a cargo tool is looked up in the cache.
    pub(crate) check: Option<Check>,
    /// How to get it.
    pub(crate) source: Source,
}

/// The linker of eBPF objects, built for Debian's LLVM 22.
pub(crate) const BPF_LINKER: CargoTool = CargoTool {
    name: "bpf-linker",
    version: "0.13.0",
    args: &["--no-default-features", "--features", "llvm-22"],
    env: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
    variant: "llvm22",
};

/// Licences, advisories and the dependency edges of the layout.
pub(crate) const CARGO_DENY: CargoTool =
    CargoTool { name: "cargo-deny", version: "0.20.2", args: &["--locked"], env: &[], variant: "" };

macro_rules! debian {
    ($needed:ident, $package:literal, $check:expr, $why:literal) => {
        Requirement {
            needed: Needed::$needed,
            why: $why,
            check: Some($check),
            source: Source::Debian($package),
        }
    };
}

/// Every requirement, in the order of installation.
pub(crate) static REQUIREMENTS: &[Requirement] = &[
    debian!(Build, "build-essential", Check::Program("cc"), "compiles the C parts of ring"),
    debian!(
        Build,
        "protobuf-compiler",
        Check::Program("protoc"),
        "compiles the feed's and containerd's messages"
    ),
    debian!(
        Build,
        "libprotobuf-dev",
        Check::File("/usr/include/google/protobuf/descriptor.proto"),
        "the definitions that etcd's messages build on"
    ),
    debian!(Build, "busybox-static", Check::File("/bin/busybox"), "a shell for the demo's image"),
    debian!(Build, "rustc-web", Check::Compiler("/usr/bin/rustc"), "compiles the eBPF programs"),
    debian!(
        Build,
        "rust-web-src",
        Check::Compiler("/usr/lib/rustlib/src"),
        "the `core` library for the eBPF target"
    ),
    debian!(
        Build,
        "llvm-22-dev",
        Check::File("/usr/lib/llvm-22/bin/llvm-config"),
        "the LLVM that bpf-linker links with"
    ),
    debian!(Build, "zlib1g-dev", Check::File("/usr/include/zlib.h"), "a library of that LLVM"),
    debian!(Build, "libzstd-dev", Check::File("/usr/include/zstd.h"), "a library of that LLVM"),
    debian!(
        Build,
        "libpolly-22-dev",
        Check::File("/usr/lib/llvm-22/lib/libPolly.a"),
        "a library of that LLVM"
    ),
    Requirement {
        needed: Needed::Build,
        why: "links the eBPF programs into one object",
        check: None,
        source: Source::Cargo(BPF_LINKER),
    },
    debian!(Run, "containerd", Check::Program("containerd"), "runs the pods' containers"),
    debian!(Run, "runc", Check::Program("runc"), "starts a container's process"),
    debian!(
        Run,
        "kubernetes-client",
        Check::Program("kubectl"),
        "kubectl, the hands of the demo and the tests"
    ),
    debian!(Run, "iproute2", Check::Program("ip"), "shows namespaces and links in tests"),
    debian!(Run, "nftables", Check::Program("nft"), "writes the rules of the nftables mode"),
    debian!(
        Run,
        "iptables",
        Check::Program("iptables-restore"),
        "writes the rules of the iptables and IPVS modes"
    ),
    debian!(Run, "ipset", Check::Program("ipset"), "fills the sets of the IPVS mode"),
    debian!(Run, "ipvsadm", Check::Program("ipvsadm"), "shows the virtual servers of the IPVS mode"),
    debian!(Run, "conntrack", Check::Program("conntrack"), "ends UDP flows to endpoints that are gone"),
    debian!(Run, "etcd-server", Check::Program("etcd"), "the other store, in its tests"),
    debian!(Run, "etcd-client", Check::Program("etcdctl"), "shows in tests what is in etcd"),
    debian!(Run, "dnsperf", Check::Program("dnsperf"), "asks DNS servers fast, in the benchmark"),
    debian!(Run, "wrk", Check::Program("wrk"), "asks an HTTP server in the benchmark of throughput"),
    debian!(Run, "unbound", Check::Program("unbound"), "the DNS server that the benchmark compares with"),
    debian!(Run, "bind9-dnsutils", Check::Program("dig"), "asks DNS servers in tests"),
    debian!(Run, "tcpdump", Check::Program("tcpdump"), "shows in tests what is on the wire"),
    debian!(
        Run,
        "qemu-system-x86",
        Check::Program("qemu-system-x86_64"),
        "runs other kernels, and counts their instructions"
    ),
    debian!(Run, "xz-utils", Check::Program("xz"), "unpacks the modules of those kernels"),
    debian!(Test, "chromium", Check::Program("chromium"), "looks at the benchmarks' report in its test"),
    debian!(Run, "bpftool", Check::Program("bpftool"), "shows in tests what is attached"),
    debian!(
        Run,
        "python3-venv",
        Check::File("/usr/share/doc/python3-venv"),
        "an environment for the Python client in tests"
    ),
    Requirement {
        needed: Needed::Run,
        why: "another client of the API, in its tests",
        check: None,
        source: Source::Python(PYTHON_CLIENT),
    },
    Requirement {
        needed: Needed::Lint,
        why: "checks licences and the dependency edges of the layout",
        check: None,
        source: Source::Cargo(CARGO_DENY),
    },
];
