$steps
        ret
        .size   main, . - main
