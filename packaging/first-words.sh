# What the first installation of a package says: what is true here, and what to type next.
if [ ! -d /run/systemd/system ]; then
    echo "Webmesh is installed. systemd does not run here, so its agent does not run either; by hand: sudo webmesh daemon"
elif ! systemctl is-active --quiet webmesh.service; then
    echo "Webmesh is installed, and its agent does not run: systemctl status webmesh"
elif [ -n "$(find /var/lib/webmesh -mindepth 1 -maxdepth 1 -type d 2>/dev/null)" ]; then
    echo "Webmesh runs, with the network that was here before: webmesh status"
else
    echo "Webmesh runs and is in no network.  New one: sudo webmesh init NAME     Join one: sudo webmesh join TOKEN"
fi
