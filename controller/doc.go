// Command controller runs the set of controllers that its workload names: trigger, incident, config, readback, attestor.
package main
