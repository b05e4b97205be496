// Hello says that it was built in stages.
package main

import (
	"fmt"
	"runtime"
)

func main() {
	fmt.Println("hello from a farm,", runtime.GOOS)
}
