//! The NICs of the VM: that they are what tests of offloading and of functions take them for.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use vifd_integration::lab::in_vm;

/// Runs a script in the VM's own network namespace, where its NICs are.
pub(crate) fn script(text: &str) -> Result<String> {
    let output = Command::new("bash").args(["-euc", text]).output().context("bash")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(printed)
}

/// A NIC 10 with two functions and its switch in switchdev mode: says what is sent to its ports, and what of it the flows do.
const SWITCHDEV: &str = r#"
    modprobe psample
    insmod "$VIFD_VM/netdevsim/$FORM/netdevsim.ko"
    echo '10 1' >/sys/bus/netdevsim/new_device
    nic=/sys/bus/netdevsim/devices/netdevsim10
    echo 2 >$nic/sriov_numvfs
    devlink dev eswitch set netdevsim/netdevsim10 mode switchdev
    for link in $nic/net/*; do
      case $(<$link/phys_port_name) in
      pf0vf0) one=${link##*/} ;;
      pf0vf1) other=${link##*/} ;;
      esac
    done
    devlink port show | grep -c 'flavour pcivf'
    ethtool -K $one hw-tc-offload on
    ip link set $one up
    ip link set $other up
    tc qdisc add dev $one ingress
    flow="flower skip_sw dst_ip 10.0.0.1 action mirred egress redirect dev $other"
    if tc filter add dev $one ingress protocol ip prio 1 $flow 2>/dev/null; then echo taken; else echo refused; fi
    tc filter show dev $one ingress | grep -ow in_hw || true
"#;

#[test]
fn netdevsim_takes_flows_in_one_form_and_refuses_them_in_the_other() -> Result<()> {
    in_vm(|| {
        let unload = "echo 10 >/sys/bus/netdevsim/del_device; rmmod netdevsim";
        let stock = script(&format!("FORM=stock\n{SWITCHDEV}\n{unload}"))?;
        assert_eq!(stock, "2\nrefused\n");
        // What is sent to a port goes on where it is told to.
        let passes_on = r#"
            ip link add wire type veth peer name end
            ip link set wire up
            ip link set end up
            port=$(devlink port show | sed -n "s#^netdevsim/netdevsim10/\([0-9]*\): .* netdev $one .*#\1#p")
            cat /sys/class/net/wire/ifindex >/sys/kernel/debug/netdevsim/netdevsim10/ports/$port/peer_ifindex
            before=$(</sys/class/net/end/statistics/rx_packets)
            ip addr add 10.9.0.1/24 dev $one
            ping -q -c 3 -i 0.2 -W 0.2 10.9.0.2 >/dev/null || true
            (($(</sys/class/net/end/statistics/rx_packets) > before)) && echo passed
            ip link del wire"#;
        let flower = script(&format!("FORM=flower\n{SWITCHDEV}\n{passes_on}\n{unload}"))?;
        assert_eq!(flower, "2\ntaken\nin_hw\npassed\n");
        Ok(())
    })
}

#[test]
fn igb_has_functions_in_iommu_groups() -> Result<()> {
    in_vm(|| {
        let told = script(
            r#"
            modprobe igb
            for nic in /sys/bus/pci/devices/*; do
              [[ $(<$nic/vendor):$(<$nic/device) == 0x8086:0x10c9 ]] && break
            done
            for second in {1..100}; do [[ -d $nic/net ]] && break; sleep 0.1; done
            echo 0 >$nic/sriov_drivers_autoprobe
            echo 2 >$nic/sriov_numvfs
            for function in $nic/virtfn*; do
              [[ $(readlink -f $function/physfn) == $(readlink -f $nic) ]]
              basename $(readlink $function)
              [[ -e $function/iommu_group ]]
            done
            ip link set $(ls $nic/net) vf 1 mac 02:11:22:33:44:51 vlan 100 spoofchk off
            ip link show $(ls $nic/net) | grep -o 'vf 1 .*'
            echo 0 >$nic/sriov_numvfs
            ls -d $nic/virtfn* 2>/dev/null | wc -l
            rmmod igb"#,
        )?;
        let lines: Vec<&str> = told.lines().collect();
        let [first, second, set, left] = lines[..] else { panic!("{told}") };
        assert!(first.ends_with(":10.0") && second.ends_with(":10.2"), "{told}");
        assert!(
            set.contains("02:11:22:33:44:51") && set.contains("vlan 100") && set.contains("spoof checking off"),
            "{told}"
        );
        assert_eq!(left, "0");
        Ok(())
    })
}
