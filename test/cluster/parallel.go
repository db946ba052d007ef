package cluster

import (
	"flag"
	"fmt"
)

// RunInParallel sets how many tests of this program run at a time, unless its command line
// does. By default it is the number of processors, but tests that mostly wait for a cluster
// can be more. It is called by TestMain.
func RunInParallel(tests int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if given {
		return
	}
	if err := flag.Set("test.parallel", fmt.Sprint(tests)); err != nil {
		panic(err)
	}
}
